//! A relay between two scripted sockets.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod model;
mod scripts;
mod world;
