//! Teachers and samplers behind servers: what is asked, what is kept, what is refused.

mod adapters;
mod evaluate;
mod recorded;
mod rollout;
mod support;
mod teach;
