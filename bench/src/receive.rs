//! Receiving over loopback: the CPU time of the thread that receives, by copying, as mapped pages,
//! and into buffers of a pool, beside the bare loops of the same calls.
//!
//! The bytes are received and let go; nobody looks at them. Copies leave them in the CPU's cache and
//! mapped pages do not, so who reads them all afterwards gains less than these figures say. The sender
//! is a thread on the other core: it splices pages of a pipe, one a segment or as the segments fall,
//! which the receiver can map, or sends copies, which it cannot. What the kernel's receive path does
//! in the sender's interrupts is not counted, and is the same for all.

use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, recv};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use zhaul::Pool;
use zhaul::receive::{Filling, ZeroCopyReceiver};
use zhaul_measure::host::Host;
use zhaul_sys::setsockopt::{IntOption, set};
use zhaul_sys::tcp_zerocopy_receive::ReceiveWindow;

use crate::affinity::{self, Cores};
use crate::interrupt;

#[derive(Debug, Clone, Args)]
pub(crate) struct Options {
    /// What is sent to each contender in each round
    #[arg(long, value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65536))]
    mib: u32,
    /// Rounds; in each one every contender receives what every sender sends
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Write every raw sample as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Sender {
    PageSegments,
    Pages,
    Copies,
}

const SENDERS: [(Sender, &str); 3] = [
    (Sender::PageSegments, "a page in each segment"),
    (Sender::Pages, "pages, large segments"),
    (Sender::Copies, "copies"),
];

type Contender = fn(&TcpStream) -> anyhow::Result<Received>;

const CONTENDERS: [(&str, Contender); 6] = [
    ("recv loop", recv_loop),
    ("mapping loop", mapping_loop),
    ("ZeroCopyReceiver, mapping", mapping_receiver),
    ("ZeroCopyReceiver, copying", copying_receiver),
    ("recv loop, 8 buffers", buffers_loop),
    ("Filling of a pool of 8", pool),
];

#[derive(Debug, Clone, Copy, Default)]
struct Received {
    bytes: u64,
    mapped: u64,
}

#[derive(Debug, Serialize)]
struct Sample {
    contender: &'static str,
    sender: Sender,
    round: u32,
    cpu_seconds_per_gb: f64,
    gb_per_second: f64,
    mapped_percent: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    host: Host,
    mib: u32,
    samples: Vec<Sample>,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    interrupt::install()?;
    let cores = Cores::pick()?;
    affinity::pin(cores.server)?;
    let mut samples = Vec::new();
    for round in 0..options.rounds {
        for (sender, _) in SENDERS {
            let mut order = CONTENDERS;
            order.rotate_left(round as usize % CONTENDERS.len());
            for (contender, receive) in order {
                interrupt::check()?;
                let bytes = u64::from(options.mib) << 20;
                let socket = sending(sender, bytes, cores.client)?;
                let (cpu, began) = (cpu_time(), Instant::now());
                let received = receive(&socket)?;
                let (cpu, wall) = (cpu_time() - cpu, began.elapsed());
                ensure!(received.bytes == bytes, "{contender}: bytes are missing");
                samples.push(Sample {
                    contender,
                    sender,
                    round,
                    cpu_seconds_per_gb: cpu.as_secs_f64() * 1e9 / bytes as f64,
                    gb_per_second: bytes as f64 / 1e9 / wall.as_secs_f64(),
                    mapped_percent: received.mapped as f64 * 100.0 / bytes as f64,
                });
            }
        }
    }
    let report = Report {
        host: Host::describe(std::path::Path::new("/")),
        mib: options.mib,
        samples,
    };
    io::stdout().lock().write_all(table(&report).as_bytes())?;
    if let Some(path) = &options.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, text).with_context(|| format!("{}", path.display()))?;
    }
    Ok(())
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

/// A connection to a thread on the other core that sends so much.
fn sending(sender: Sender, bytes: u64, core: Option<usize>) -> anyhow::Result<TcpStream> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    if sender == Sender::PageSegments {
        // A page and the timestamp option.
        set(listener.as_fd(), IntOption::TcpMaxSegment, 4096 + 12)?;
    }
    let near = TcpStream::connect(listener.local_addr()?)?;
    std::thread::spawn(move || -> io::Result<()> {
        let _ = affinity::pin(core);
        let part = vec![7; 256 << 10];
        let mut left = bytes;
        let (reader, mut writer) = io::pipe()?;
        rustix::pipe::fcntl_setpipe_size(&writer, part.len())?;
        while left > 0 {
            let len = left.min(part.len() as u64) as usize;
            if sender == Sender::Copies {
                (&near).write_all(&part[..len])?;
            } else {
                writer.write_all(&part[..len])?;
                let mut inside = len;
                while inside > 0 {
                    let flags = rustix::pipe::SpliceFlags::empty();
                    inside -= rustix::pipe::splice(&reader, None, &near, None, inside, flags)?;
                }
            }
            left -= len as u64;
        }
        Ok(())
    });
    Ok(listener.accept()?.0)
}

fn recv_loop(socket: &TcpStream) -> anyhow::Result<Received> {
    let mut buffer = vec![0; 256 << 10];
    let mut received = Received::default();
    loop {
        match recv(socket, &mut buffer[..], RecvFlags::empty())?.0 {
            0 => return Ok(received),
            bytes => received.bytes += bytes as u64,
        }
    }
}

fn mapping_loop(socket: &TcpStream) -> anyhow::Result<Received> {
    let mut window = ReceiveWindow::of(socket.as_fd(), 2 << 20)?;
    let mut rest = vec![0; 32 << 10];
    let mut received = Received::default();
    loop {
        let came = window.receive(usize::MAX, &mut rest).unwrap_or_default();
        received.mapped += came.mapped as u64;
        received.bytes += (came.mapped + came.copied) as u64;
        if came.mapped + came.copied == 0 {
            poll(&mut [PollFd::new(socket, PollFlags::IN)], None)?;
            if came.to_read > 0 || rustix::io::ioctl_fionread(socket)? == 0 {
                match recv(socket, &mut rest[..], RecvFlags::DONTWAIT) {
                    Ok((0, _)) => return Ok(received),
                    Ok((bytes, _)) => received.bytes += bytes as u64,
                    Err(rustix::io::Errno::AGAIN) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
    }
}

fn mapping_receiver(socket: &TcpStream) -> anyhow::Result<Received> {
    receive_all(ZeroCopyReceiver::new(socket).map_local_peer(true))
}

fn copying_receiver(socket: &TcpStream) -> anyhow::Result<Received> {
    receive_all(ZeroCopyReceiver::new(socket))
}

fn receive_all(mut receiver: ZeroCopyReceiver<&TcpStream>) -> anyhow::Result<Received> {
    while receiver.receive()?.is_some() {}
    Ok(Received {
        bytes: receiver.figures().received(),
        mapped: receiver.figures().mapped,
    })
}

/// The same as a pool's buffers: 8 of 1 MiB in turn, which no cache holds.
fn buffers_loop(socket: &TcpStream) -> anyhow::Result<Received> {
    let mut buffers = vec![vec![0; BLOCK]; 8];
    let mut received = Received::default();
    for turn in 0.. {
        let buffer = &mut buffers[turn % 8];
        match recv(socket, &mut buffer[..], RecvFlags::WAITALL)?.0 {
            0 => break,
            bytes => received.bytes += bytes as u64,
        }
    }
    Ok(received)
}

fn pool(socket: &TcpStream) -> anyhow::Result<Received> {
    let pool = Pool::new(BLOCK, 8)?;
    let mut kept = std::collections::VecDeque::new();
    let mut received = Received::default();
    loop {
        if kept.len() == 8 {
            kept.pop_front();
        }
        let mut filling = Filling::new(pool.allocate().context("a buffer is free")?);
        let is_full = filling.receive(socket)?;
        received.bytes += filling.len() as u64;
        kept.push_back(filling.freeze());
        if !is_full {
            return Ok(received);
        }
    }
}

/// A row for each contender, columns for each sender: medians, and in brackets the CPU time as a
/// multiple of the first row's.
fn table(report: &Report) -> String {
    let names: Vec<_> = SENDERS.iter().map(|(_, name)| *name).collect();
    let mut text = format!(
        "{} MiB, CPU s/GB of the receiver (× recv loop), GB/s, mapped\n\n| | {} |\n|---|{}\n",
        report.mib,
        names.join(" | "),
        "---|".repeat(names.len())
    );
    for (contender, _) in CONTENDERS {
        text += &format!("| {contender} |");
        for (sender, _) in SENDERS {
            let of = |contender, part: fn(&Sample) -> f64| {
                let samples = report.samples.iter();
                let chosen = samples.filter(|s| s.sender == sender && s.contender == contender);
                median(chosen.map(part).collect())
            };
            let cpu = |name| of(name, |sample| sample.cpu_seconds_per_gb);
            text += &format!(
                " {:.3} ({:.2}×), {:.1}, {:.0} % |",
                cpu(contender),
                cpu(contender) / cpu(CONTENDERS[0].0),
                of(contender, |sample| sample.gb_per_second),
                of(contender, |sample| sample.mapped_percent)
            );
        }
        text.push('\n');
    }
    text
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

const BLOCK: usize = 1 << 20;
