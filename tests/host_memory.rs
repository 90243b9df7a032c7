//! How much of the host's memory a set of image files takes. Alone in its process, whose peak
//! it measures.
#![cfg(target_os = "linux")]

mod files;

use files::Files;
use gpucnn::data::Request;
use image::GrayImage;

/// The most memory that this process ever held, in bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.split_whitespace().next()).unwrap();
    1024 * kib.parse::<u64>().unwrap()
}

#[test]
fn images_in_files_take_little_of_it_however_many_there_are() {
    let files = Files::new();
    let image = GrayImage::from_fn(4, 4, |x, y| [(50 * x + y) as u8].into());
    for i in 0..128 {
        let path = files.path(&format!("data/{}/{i}.png", i % 2));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        image.save(path).unwrap();
    }
    let name = files.text("data");
    let request = Request {
        shape: Some([3, 1024, 1024]),
        host_budget: Some(100 << 20),
        ..Request::new(&name)
    };
    let before = peak();
    let data = request.load().unwrap();
    let moments = data.train.moments(3).unwrap();
    assert!(moments.iter().all(|m| m.std > 0.0));
    // 384 MiB of pixels, of which 32 MiB are decoded at a time; a decoder of each thread holds
    // an image some times over.
    let taken = (peak() - before) >> 20;
    assert!(taken < 192, "{taken} MiB");
}
