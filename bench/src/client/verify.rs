//! Before anything is timed: does this server send the right bytes?

use std::fs::File;
use std::io::Read as _;
use std::net::Ipv4Addr;

use anyhow::{Context as _, ensure};

use super::exchange::Exchange;
use crate::server::{Server, Site};

/// Fetches the site's file twice on one connection and compares every byte with the disk.
pub(crate) fn verify(server: &Server, site: Site<'_>) -> anyhow::Result<()> {
    let name = server.contender.name();
    let mut exchange = Exchange::connect(server.address, Ipv4Addr::LOCALHOST)?;
    for _ in 0..2 {
        compare(&mut exchange, site)
            .with_context(|| format!("{name} answers /{} wrongly", site.file))?;
    }
    Ok(())
}

fn compare(exchange: &mut Exchange, site: Site<'_>) -> anyhow::Result<()> {
    let mut file = File::open(site.root.join(site.file))?;
    let length = file.metadata()?.len();
    let head = exchange.get(site.file, "")?;
    ensure!(head.status == 200, "status {}", head.status);
    ensure!(
        head.length == Some(length),
        "Content-Length {:?}, file {length}",
        head.length
    );
    let mut expected = Vec::new();
    let mut offset = 0;
    exchange.body(length, |piece| {
        expected.resize(piece.len(), 0);
        file.read_exact(&mut expected)?;
        if let Some(at) = piece
            .iter()
            .zip(&expected)
            .position(|(got, want)| got != want)
        {
            anyhow::bail!("byte {} differs from the file", offset + at as u64);
        }
        offset += piece.len() as u64;
        Ok(())
    })
}
