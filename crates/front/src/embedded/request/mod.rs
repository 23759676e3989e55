pub mod dev_page;
pub mod endpoints;
pub mod request_id;
pub mod serve;
pub mod state;
