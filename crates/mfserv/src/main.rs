//! mfserv
fn main() {}
