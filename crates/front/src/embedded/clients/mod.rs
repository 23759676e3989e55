pub mod access_log;
pub mod answer;
pub mod connection;
pub mod idle_eviction;
pub mod real_ip;
