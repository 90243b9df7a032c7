//! `gpucnn devices`

use super::output;
use gpucnn::gpu::{self, AdapterSummary};
use gpucnn::{Error, Result};
use serde_json::{Value, json};

/// List the adapters that can be trained on, best first.
#[derive(clap::Args)]
pub struct Args {
    /// One JSON object a line on standard output
    #[arg(long)]
    json: bool,
}

/// The optional features kernels make use of.
const FEATURES: [(&str, wgpu::Features); 5] = [
    ("subgroups", wgpu::Features::SUBGROUP),
    ("f16", wgpu::Features::SHADER_F16),
    ("timestamps", wgpu::Features::TIMESTAMP_QUERY),
    (
        "cooperative matrices",
        wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX,
    ),
    ("pipeline cache", wgpu::Features::PIPELINE_CACHE),
];

pub fn run(args: &Args) -> Result<()> {
    let adapters = gpu::adapters();
    if adapters.is_empty() {
        return Err(Error::Device(gpu::NO_ADAPTER.into()));
    }
    for (i, adapter) in adapters.iter().enumerate() {
        if args.json {
            output::json(&as_json(adapter));
        } else {
            print(i, adapter);
        }
    }
    Ok(())
}

fn features(adapter: &AdapterSummary) -> [Vec<&'static str>; 2] {
    let has = |present: bool| {
        let listed = FEATURES
            .iter()
            .filter(|f| adapter.features.contains(f.1) == present);
        listed.map(|f| f.0).collect()
    };
    [has(true), has(false)]
}

fn print(index: usize, adapter: &AdapterSummary) {
    let info = &adapter.info;
    let limits = &adapter.limits;
    let [present, absent] = features(adapter);
    let list = |names: Vec<&str>| match names.is_empty() {
        true => "none".to_owned(),
        false => names.join(", "),
    };
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    println!("{index}: {}", info.name);
    println!("   backend     {}, {:?}", info.backend, info.device_type);
    println!("   driver      {} {}", info.driver, info.driver_info);
    println!("   profile     {} kernels", adapter.profile.kind);
    println!(
        "   subgroups   {} to {} lanes",
        info.subgroup_min_size, info.subgroup_max_size
    );
    println!("   features    {}", list(present));
    println!("   missing     {}", list(absent));
    println!(
        "   buffers     up to {}, bindings up to {}",
        mib(limits.max_buffer_size),
        mib(limits.max_storage_buffer_binding_size)
    );
    println!(
        "   workgroups  up to {} invocations, {} KiB of shared memory, {} in a dimension",
        limits.max_compute_invocations_per_workgroup,
        limits.max_compute_workgroup_storage_size >> 10,
        limits.max_compute_workgroups_per_dimension
    );
}

fn as_json(adapter: &AdapterSummary) -> Value {
    let (info, limits) = (&adapter.info, &adapter.limits);
    let [present, absent] = features(adapter);
    json!({
        "name": info.name,
        "backend": info.backend.to_string(),
        "type": format!("{:?}", info.device_type),
        "driver": info.driver,
        "driver_info": info.driver_info,
        "profile": adapter.profile.kind.to_string(),
        "subgroup_sizes": [info.subgroup_min_size, info.subgroup_max_size],
        "features": present,
        "missing": absent,
        "max_buffer_size": limits.max_buffer_size,
        "max_storage_buffer_binding_size": limits.max_storage_buffer_binding_size,
        "max_compute_invocations_per_workgroup": limits.max_compute_invocations_per_workgroup,
        "max_compute_workgroup_storage_size": limits.max_compute_workgroup_storage_size,
        "max_compute_workgroups_per_dimension": limits.max_compute_workgroups_per_dimension,
    })
}
