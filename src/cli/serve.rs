//! `gpucnn serve`

use super::{output, shared};
use gpucnn::Result;
use gpucnn::serve::{Options, Server, Service, signalled};
use gpucnn::train::RunFolder;
use serde_json::json;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Answer predictions over HTTP, with a page where one drops an image.
#[derive(clap::Args)]
pub struct Args {
    /// The run folder that `gpucnn train` made
    run: PathBuf,
    /// The address to listen at; by default this machine alone can reach it
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    host: IpAddr,
    /// The port; 0 for any free one
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
    /// Most images that go through the device at once [default: as many as fit, at most 32]
    #[arg(long, value_name = "N")]
    max_batch: Option<usize>,
    /// Take at most this much of the device's memory, such as 4GiB or 500MB; a number alone is
    /// MiB [default: what is free, where the device tells]
    #[arg(long, value_name = "SIZE", value_parser = shared::mebibytes)]
    memory_budget: Option<u64>,
    /// Milliseconds that the first image of a batch waits for others
    #[arg(long, value_name = "MS", default_value_t = 2)]
    max_wait: u64,
    /// Most images that wait; further requests are told to come again (429)
    #[arg(long, value_name = "N", default_value_t = 256)]
    queue: usize,
    /// Most bytes of a request, in MiB; larger ones are refused (413)
    #[arg(long, value_name = "MIB", default_value_t = 8)]
    max_body: usize,
    /// Seconds that a request may take
    #[arg(long, value_name = "S", default_value_t = 30)]
    timeout: u64,
    /// Take the weights of the epoch whose validation was the best, not the last ones
    #[arg(long)]
    best: bool,
    /// auto, cpu (the reference path, slow) or part of an adapter's name
    #[arg(long, value_name = "auto|cpu|NAME", default_value = "auto")]
    device: String,
    /// One JSON object a line on standard output
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<()> {
    let folder = RunFolder::open(&args.run)?;
    let model = folder.model()?;
    let weights = shared::weights(&folder, &model, args.best)?;
    let classes = folder.classes(&model);
    let options = Options {
        host: args.host,
        port: args.port,
        max_batch: args.max_batch,
        memory_budget: args.memory_budget,
        max_wait: Duration::from_millis(args.max_wait),
        queue: args.queue,
        max_body: args.max_body.saturating_mul(1 << 20),
        timeout: Duration::from_secs(args.timeout),
    };
    let name = model.name().to_owned();
    let service = Service {
        model,
        weights,
        int8: folder.int8()?.filter(|_| !args.best),
        classes,
    };
    let device = args.device.clone();
    let server = Server::start(service, &options, move || shared::open_device(&device))?;
    eprintln!("device: {}", server.device());
    if !args.host.is_loopback() {
        eprintln!(
            "warning: {} is no loopback address: whoever reaches it can use the server, which knows no passwords and no TLS",
            args.host
        );
    }
    let url = format!("http://{}/", server.address());
    if args.json {
        output::json(&json!({"event": "serve", "url": url, "device": server.device()}));
    } else {
        println!("serving {name} at {url} until Ctrl-C");
    }
    let images = server.run(signalled())?;
    if args.json {
        output::json(&json!({"event": "end", "images": images}));
    } else {
        println!("{images} images classified");
    }
    Ok(())
}
