//! Something that is lent for the time of a transfer, or shared with it.

use std::ops::Deref;
use std::sync::Arc;

/// A reference, or a share. Builders take either: what is borrowed costs nothing, and what is
/// shared makes a future that can be spawned.
#[derive(Debug)]
pub enum Handle<'a, T> {
    /// Lent.
    Borrowed(&'a T),
    /// Kept alive.
    Shared(Arc<T>),
}

impl<T> Deref for Handle<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(value) => value,
            Self::Shared(value) => value,
        }
    }
}

impl<T> Clone for Handle<'_, T> {
    fn clone(&self) -> Self {
        match self {
            Self::Borrowed(value) => Self::Borrowed(value),
            Self::Shared(value) => Self::Shared(Arc::clone(value)),
        }
    }
}

impl<'a, T> From<&'a T> for Handle<'a, T> {
    fn from(value: &'a T) -> Self {
        Self::Borrowed(value)
    }
}

impl<T> From<Arc<T>> for Handle<'_, T> {
    fn from(value: Arc<T>) -> Self {
        Self::Shared(value)
    }
}

impl<'a, T> From<&'a Arc<T>> for Handle<'a, T> {
    fn from(value: &'a Arc<T>) -> Self {
        Self::Borrowed(value)
    }
}
