//! Teachers and samplers behind servers: what is asked, what is kept, what is refused.

mod adapters;
mod evaluate;
mod feed;
mod recorded;
mod rollout;
mod support;
mod teach;
#[allow(dead_code, reason = "one of two ways to start a server is enough here")]
#[path = "../support/tiny_server.rs"]
mod tiny_server;
