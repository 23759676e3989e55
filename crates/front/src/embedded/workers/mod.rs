pub mod forward;
pub mod heads;
pub mod relay;
pub mod tunnel;
pub mod upload;
pub mod upstream;
