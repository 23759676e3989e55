pub mod budget;
pub mod buffer;
pub mod error_log;
pub mod log_file;
pub mod pipe;
pub mod timer;
pub mod wire;
