//! Reading device buffers back, at once or in the background.

use super::device::Gpu;
use crate::error::{Error, Result};
use std::sync::mpsc::{Receiver, channel};

/// A copy to the host under way.
#[derive(Debug)]
pub struct Readback {
    staging: wgpu::Buffer,
    bytes: u64,
    mapped: Option<Receiver<Result<(), wgpu::BufferAsyncError>>>,
}

impl Readback {
    /// A staging buffer for `bytes`; reused from submission to submission.
    ///
    /// # Errors
    /// If the device is out of memory.
    pub fn new(gpu: &Gpu, bytes: u64) -> Result<Self> {
        let staging = gpu.scoped("readback", || {
            gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("readback"),
                size: Self::capacity_for(bytes),
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        })?;
        Ok(Self {
            staging,
            bytes,
            mapped: None,
        })
    }

    /// Bytes of the staging buffer for so many: rounded up, so that submissions of different
    /// length share their buffers.
    pub fn capacity_for(bytes: u64) -> u64 {
        const UNIT: u64 = 1024;
        bytes.next_multiple_of(UNIT).max(UNIT)
    }

    /// Bytes of the staging buffer.
    pub fn capacity(&self) -> u64 {
        self.staging.size()
    }

    /// The same staging buffer for other `bytes` of that capacity.
    #[must_use]
    pub fn with_bytes(mut self, bytes: u64) -> Self {
        self.bytes = bytes;
        self
    }

    /// Encodes the copy from `source`.
    pub fn encode(&self, encoder: &mut wgpu::CommandEncoder, source: &wgpu::Buffer, offset: u64) {
        let bytes = self.bytes.next_multiple_of(4);
        encoder.copy_buffer_to_buffer(source, offset, &self.staging, 0, bytes);
    }

    /// Asks for the data; call after the submission.
    pub fn request(&mut self) {
        let (sender, receiver) = channel();
        self.staging
            .map_async(wgpu::MapMode::Read, .., move |result| {
                // The receiver is gone only if the reader gave up on the data.
                let _ = sender.send(result);
            });
        self.mapped = Some(receiver);
    }

    /// The data, if it has arrived. Never blocks.
    ///
    /// # Errors
    /// If the device failed.
    pub fn poll(&mut self, gpu: &Gpu) -> Result<Option<Vec<u8>>> {
        gpu.check()?;
        gpu.device
            .poll(wgpu::PollType::Poll)
            .map_err(|e| gpu.refused(e.to_string()))?;
        let Some(receiver) = &self.mapped else {
            return Ok(None);
        };
        match receiver.try_recv() {
            Ok(result) => self.take(gpu, result).map(Some),
            Err(std::sync::mpsc::TryRecvError::Empty) => Ok(None),
            Err(e) => Err(gpu.refused(e.to_string())),
        }
    }

    /// The data, waiting for `submission`.
    ///
    /// # Errors
    /// If the device failed.
    pub fn wait(&mut self, gpu: &Gpu, submission: &wgpu::SubmissionIndex) -> Result<Vec<u8>> {
        gpu.wait(Some(submission))?;
        let result = match &self.mapped {
            // The wait has delivered it.
            Some(receiver) => receiver
                .try_recv()
                .map_err(|e| gpu.refused(format!("readback: {e}")))?,
            None => return Err(Error::Runtime("no readback was requested".into())),
        };
        self.take(gpu, result)
    }

    fn take(&mut self, gpu: &Gpu, result: Result<(), wgpu::BufferAsyncError>) -> Result<Vec<u8>> {
        self.mapped = None;
        if let Err(error) = result {
            return Err(gpu.refused(format!("readback: {error}")));
        }
        let view = self
            .staging
            .get_mapped_range(..)
            .map_err(|e| gpu.refused(format!("readback: {e}")))?;
        let mut data = view.to_vec();
        drop(view);
        data.truncate(self.bytes as usize);
        self.staging.unmap();
        Ok(data)
    }
}
