//! How long each dispatch takes: by the device's timestamps where it has them, by the
//! host's clock where not.

use super::device::Gpu;
use super::executor::Command;
use super::readback::Readback;
use crate::error::Result;
use std::fmt;
use std::time::Instant;

/// Dispatches whose times are taken in one submission: two timestamps each, of the 4096
/// a WebGPU query set may hold.
const CHUNK: usize = 2048;

/// What measured a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Timestamps the device writes before and after.
    Device,
    /// The time a submission of the dispatch alone takes, less that of an empty one.
    Host,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device timestamps",
            Self::Host => "host clock",
        })
    }
}

impl Gpu {
    /// The clock dispatches are timed by.
    pub fn clock(&self) -> Clock {
        let features = self.device.features();
        match features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            true => Clock::Device,
            false => Clock::Host,
        }
    }

    /// Seconds of each command, the median of `repeats` runs over the whole list.
    ///
    /// # Errors
    /// If the device fails.
    pub(crate) fn time(&self, commands: &[Command], repeats: usize) -> Result<Vec<f64>> {
        let mut runs = Vec::with_capacity(repeats);
        for _ in 0..repeats {
            runs.push(match self.clock() {
                Clock::Device => self.time_by_timestamps(commands)?,
                Clock::Host => self.time_by_host(commands)?,
            });
        }
        let median = |i: usize| {
            let mut times: Vec<f64> = runs.iter().map(|run| run[i]).collect();
            times.sort_by(f64::total_cmp);
            times.get(times.len() / 2).copied().unwrap_or(0.0)
        };
        Ok((0..commands.len()).map(median).collect())
    }

    fn time_by_timestamps(&self, commands: &[Command]) -> Result<Vec<f64>> {
        let mut seconds = Vec::with_capacity(commands.len());
        for chunk in commands.chunks(CHUNK) {
            let count = 2 * chunk.len() as u32;
            let bytes = u64::from(count) * 8;
            let queries = self.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("profile"),
                ty: wgpu::QueryType::Timestamp,
                count,
            });
            let resolved = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("profile"),
                size: bytes,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            });
            let mut encoder = self.device.create_command_encoder(&Default::default());
            for (i, command) in chunk.iter().enumerate() {
                let first = 2 * i as u32;
                let timed = |begin, end| wgpu::ComputePassDescriptor {
                    label: None,
                    timestamp_writes: Some(wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: begin,
                        end_of_pass_write_index: end,
                    }),
                };
                // Copies are part of the dispatch, but of no pass.
                let mut begin = Some(first);
                if !command.copies().is_empty() {
                    drop(encoder.begin_compute_pass(&timed(begin.take(), None)));
                    command.copies().iter().for_each(|c| c.encode(&mut encoder));
                }
                let mut pass = encoder.begin_compute_pass(&timed(begin, Some(first + 1)));
                command.encode(&mut pass, 0);
            }
            encoder.resolve_query_set(&queries, 0..count, &resolved, 0);
            let mut readback = Readback::new(self, bytes)?;
            readback.encode(&mut encoder, &resolved, 0);
            let submission = self.submit(Some(encoder.finish()))?;
            readback.request();
            let bytes = readback.wait(self, &submission)?;
            let ticks: Vec<[u64; 2]> = bytemuck::pod_collect_to_vec(&bytes);
            let period = f64::from(self.queue.get_timestamp_period()) * 1e-9;
            let elapsed = |[begin, end]: &[u64; 2]| end.saturating_sub(*begin) as f64 * period;
            seconds.extend(ticks.iter().map(elapsed));
        }
        Ok(seconds)
    }

    fn time_by_host(&self, commands: &[Command]) -> Result<Vec<f64>> {
        let empty = self.time_submission(None)?;
        commands
            .iter()
            .map(|command| Ok((self.time_submission(Some(command))? - empty).max(0.0)))
            .collect()
    }

    fn time_submission(&self, command: Option<&Command>) -> Result<f64> {
        let mut encoder = self.device.create_command_encoder(&Default::default());
        if let Some(command) = command {
            command.copies().iter().for_each(|c| c.encode(&mut encoder));
            let mut pass = encoder.begin_compute_pass(&Default::default());
            command.encode(&mut pass, 0);
        }
        let begin = Instant::now();
        self.submit(Some(encoder.finish()))?;
        self.wait(None)?;
        Ok(begin.elapsed().as_secs_f64())
    }
}
