//! Forwards TCP connections: a relay between each client and the server, both ways on one thread.
//! Bulk is spliced, messages are copied, and ends, resets and idle connections are passed on.
//!
//! cargo run --release --example splice_sockets -- 127.0.0.1:9001 127.0.0.1:9000
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use zhaul::relay::Way;

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
            if let Err(error) = forward(client, &to).await {
                println!("{peer}: {error}");
            }
        });
    }
}

async fn forward(client: TcpStream, to: &str) -> io::Result<()> {
    let (peer, server) = (client.peer_addr()?, TcpStream::connect(to).await?);
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ending = zhaul::relay(client, server)
        .idle_timeout(Duration::from_secs(600))
        .run_async()
        .await;
    let (there, back) = (ending.stats.way(Way::AToB), ending.stats.way(Way::BToA));
    println!(
        "{peer}: {}; {} bytes there ({} spliced), {} back ({} spliced)",
        ending.cause, there.delivered, there.spliced, back.delivered, back.spliced
    );
    Ok(())
}
