//! What lies below the root: finding and opening it, knowing whether what is known of it still
//! holds, and waiting for storage where that may take long.

pub(crate) mod cache;
pub(crate) mod chunk;
pub(crate) mod entry;
pub(crate) mod load;
pub(crate) mod loading;
pub(crate) mod lookup;
pub(crate) mod mount;
pub(crate) mod mounts;
pub(crate) mod open_file;
mod represent;
pub(crate) mod root;
pub(crate) mod small;
pub(crate) mod storage;
pub(crate) mod tree;
