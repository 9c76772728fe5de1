//! The machine, behind traits: file system calls, services, processes, clock, entropy. The only room
//! with `unsafe` code, each block with its reason.

pub mod aside;
pub mod clock;
pub mod commands;
pub mod entropy;
pub mod fanotify;
pub mod freeze;
pub mod fs;
pub mod health;
pub mod locks;
pub mod machine;
pub mod node;
pub mod pressure;
pub mod priority;
pub mod process;
pub mod run;
pub mod service;
pub mod signal;
pub mod systemd;
pub mod users;
pub mod watchdog;
