//! Sends a file to whoever connects, and says by which route: send_file FILE 127.0.0.1:9000
#![allow(clippy::print_stdout)]

use std::{error::Error, fs::File, net::TcpListener};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(path), Some(address)) = (arguments.next(), arguments.next()) else {
        return Err("usage: send_file FILE ADDRESS".into());
    };
    let (file, listener) = (File::open(&path)?, TcpListener::bind(&address)?);
    let local = listener.local_addr()?;
    println!("sending {path} to whoever connects to {local}");
    for socket in listener.incoming() {
        let socket = socket?;
        let haul = zhaul::transfer(&file, &socket).stability(zhaul::Stability::Immutable);
        let plan = haul.plan()?;
        println!("{}: {}", plan.route, plan.because);
        for (route, rejection) in plan.rejected() {
            println!("  not {route}: {rejection}");
        }
        match haul.run() {
            Ok(summary) => println!("{} bytes in {} calls", summary.moved, summary.calls),
            Err(error) => println!("stopped: {error}"),
        }
    }
    Ok(())
}
