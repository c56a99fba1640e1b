//! The hierarchy on real interfaces, in namespaces of its own.

mod install;
mod replace;
mod support;
mod traffic;
