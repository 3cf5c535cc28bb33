//! Forwards TCP connections: splices two sockets in both directions on one thread.
//!
//! cargo run --release --example splice_sockets -- 127.0.0.1:9001 127.0.0.1:9000
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io;

use tokio::net::{TcpListener, TcpStream};
use zhaul::{Summary, TransferError, transfer};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(to)) = (arguments.next(), arguments.next()) else {
        return Err("usage: splice_sockets LISTEN TO".into());
    };
    let listener = TcpListener::bind(&listen).await?;
    println!("forwarding {} to {to}", listener.local_addr()?);
    loop {
        let (client, peer) = listener.accept().await?;
        let to = to.clone();
        tokio::spawn(async move {
            match forward(&client, &to).await {
                Ok((sent, received)) => {
                    println!(
                        "{peer}: {} bytes there, {} back",
                        sent.moved, received.moved
                    );
                }
                Err(error) => println!("{peer}: {error}"),
            }
        });
    }
}

async fn forward(client: &TcpStream, to: &str) -> io::Result<(Summary, Summary)> {
    let server = TcpStream::connect(to).await?;
    Ok(tokio::try_join!(
        one_way(client, &server),
        one_way(&server, client)
    )?)
}

/// Splices until the source ends, and passes the end on.
async fn one_way(source: &TcpStream, sink: &TcpStream) -> Result<Summary, TransferError> {
    let summary = transfer(source, sink).run_async().await?;
    // The peer may be gone already; then there is nobody to tell.
    let _ = rustix::net::shutdown(sink, rustix::net::Shutdown::Write);
    Ok(summary)
}
