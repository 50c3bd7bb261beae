//! Starling: a Redis-protocol cache whose nodes form, balance and heal a cluster by themselves.
//!
//! The modules stand in layer order: each may import those above it and nothing below.
//! `ARCHITECTURE.md` is the map; `tests/tidy.rs` holds the direction of the imports.

pub mod base;

pub mod resp;

pub mod values;

pub mod rdb;

pub mod config;

pub mod engine;

pub mod persistence;

pub mod files;

pub mod transport;

pub mod cluster;

pub mod moves;

pub mod proxy;

pub mod services;

pub mod commands;

pub mod server;

pub mod node;

pub mod cli;
