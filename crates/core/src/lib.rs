//! The vocabulary every other crate speaks: the head, the exchange, the policy, the problem.
//!
//! Nothing here opens a socket, reads a file or asks the operating system for the time.

pub mod auth;
pub mod authority;
pub mod calendar;
pub mod carry;
pub mod certificate;
pub mod codes;
pub mod decode;
pub mod exchange;
pub mod finding;
pub mod grpc;
pub mod head;
pub mod hex;
pub mod identity;
pub mod known;
pub mod limit;
pub mod limit_config;
pub mod node;
pub mod now;
pub mod path;
pub mod planted;
pub mod policy;
pub mod problem;
pub mod proxy_protocol;
pub mod query;
pub mod registry;
pub mod services;
pub mod units;
pub mod websocket;

pub use exchange::Exchange;
pub use head::{BodyLength, Fields, RequestHead, ResponseHead, Scheme, Span, Version};
pub use identity::Identity;
pub use known::Known;
pub use now::Now;
pub use policy::{Phase, Policy, Reply, ReplyBody, Step};
pub use problem::Problem;
pub use services::Services;
