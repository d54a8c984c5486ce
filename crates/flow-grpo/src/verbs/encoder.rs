//! stub
use anyhow::{Result, bail};
use clap::Args;
use crate::backend::Device;
/// Stub.
#[derive(Args, Debug)]
pub struct EncoderArgs {}
/// Stub.
pub fn run(_: &EncoderArgs, _: &Device) -> Result<()> { bail!("stub") }
