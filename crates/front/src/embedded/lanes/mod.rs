pub mod lane;
pub mod listener;
