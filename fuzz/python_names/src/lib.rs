//! Types that have no value: what takes one is compiled and never called.

/// What `pyo3::prelude` has of them.
pub mod prelude {
    pub use super::{Bound, Py, Python};
}

/// Types of Python.
pub mod types {
    /// `bytes`.
    pub enum PyBytes {}
}

use std::marker::PhantomData;

/// Nothing.
#[derive(Clone, Copy)]
pub enum Never {}

/// A proof that the interpreter's lock is held.
#[derive(Clone, Copy)]
pub struct Python<'py>(Never, PhantomData<&'py ()>);

/// An object.
pub struct Py<T>(Never, PhantomData<T>);

/// An object, while the lock is held.
pub struct Bound<'py, T>(Never, PhantomData<(&'py (), T)>);

impl<T> Clone for Bound<'_, T> {
    fn clone(&self) -> Self {
        match self.0 {}
    }
}

impl<T> Bound<'_, T> {
    /// The same object without the lock.
    pub fn unbind(self) -> Py<T> {
        match self.0 {}
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        match self.0 {}
    }
}

impl<T> Py<T> {
    /// The same object with the lock.
    pub fn bind<'py>(&self, _: Python<'py>) -> &Bound<'py, T> {
        match self.0 {}
    }
}
