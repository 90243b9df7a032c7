//! `gpucnn export --format web`: the files alone give what the GPU backend gives, replayed
//! through wgpu with WebGPU's default limits, and in a browser.

mod files;
mod support;

use files::{Files, gpucnn, json_lines};
use gpucnn::formats::safetensors;
use gpucnn::gpu::profile::ProfileKind;
use gpucnn::graph::GpuBackend;
use gpucnn::infer::{Predictor, web};
use gpucnn::model::Model;
use gpucnn::train::Weights;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn number(value: &Value, field: &str) -> u64 {
    let found = value[field].as_u64();
    found.unwrap_or_else(|| panic!("no {field:?} in {value}"))
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().unwrap()
}

/// A device with no feature and no limit beyond WebGPU's defaults.
fn plain_device() -> (wgpu::Device, wgpu::Queue) {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor);
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    let adapter = adapters.into_iter().next().expect("an adapter");
    let limits = wgpu::DeviceDescriptor {
        required_limits: wgpu::Limits::default(),
        ..Default::default()
    };
    pollster::block_on(adapter.request_device(&limits)).unwrap()
}

/// Runs the export in `folder` on the bytes of an image; the logits.
fn replay(folder: &Path, image: &[u8]) -> Vec<f32> {
    let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
    let plan: Value = serde_json::from_slice(&read("plan.json")).unwrap();
    let weights = read("weights.bin");
    let (device, queue) = plain_device();
    let buffers: Vec<wgpu::Buffer> = items(&plan, "buffers")
        .iter()
        .map(|buffer| {
            let bytes = number(buffer, "bytes");
            let uniform = match buffer["name"] == "step" {
                true => wgpu::BufferUsages::UNIFORM,
                false => wgpu::BufferUsages::STORAGE,
            };
            let copies = wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
            let made = device.create_buffer(&wgpu::BufferDescriptor {
                label: None,
                size: bytes,
                usage: uniform | copies,
                mapped_at_creation: false,
            });
            if let Some(content) = buffer.get("content") {
                let offset = number(content, "offset") as usize;
                queue.write_buffer(&made, 0, &weights[offset..offset + bytes as usize]);
            }
            made
        })
        .collect();
    let mut bytes = image.to_vec();
    bytes.resize(image.len().next_multiple_of(4), 0);
    queue.write_buffer(&buffers[number(&plan, "image") as usize], 0, &bytes);
    let mut encoder = device.create_command_encoder(&Default::default());
    for dispatch in items(&plan, "dispatches") {
        let shader = items(&plan, "shaders")[number(dispatch, "shader") as usize]
            .as_str()
            .unwrap();
        let text = String::from_utf8(read(&format!("shaders/{shader}"))).unwrap();
        encode(&device, &mut encoder, dispatch, text, &buffers);
    }
    let logits = &buffers[number(&plan, "logits") as usize];
    let readback = device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: logits.size(),
        usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
        mapped_at_creation: false,
    });
    encoder.copy_buffer_to_buffer(logits, 0, &readback, 0, logits.size());
    queue.submit([encoder.finish()]);
    readback
        .slice(..)
        .map_async(wgpu::MapMode::Read, |mapped| mapped.unwrap());
    device.poll(wgpu::PollType::wait_indefinitely()).unwrap();
    let classes = items(&plan, "classes").len();
    bytemuck::cast_slice(&readback.slice(..).get_mapped_range().unwrap())[..classes].to_vec()
}

fn encode(
    device: &wgpu::Device,
    encoder: &mut wgpu::CommandEncoder,
    dispatch: &Value,
    shader: String,
    buffers: &[wgpu::Buffer],
) {
    let bindings = items(dispatch, "bindings");
    // wgpu lets a kernel reach past a binding's end, a browser does not.
    assert!(
        bindings
            .iter()
            .all(|b| number(b, "bytes").is_multiple_of(16))
    );
    let entries: Vec<wgpu::BindGroupLayoutEntry> = bindings
        .iter()
        .map(|b| wgpu::BindGroupLayoutEntry {
            binding: number(b, "binding") as u32,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match b["type"].as_str().unwrap() {
                    "uniform" => wgpu::BufferBindingType::Uniform,
                    kind => wgpu::BufferBindingType::Storage {
                        read_only: kind == "read-only-storage",
                    },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
        label: None,
        entries: &entries,
    });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: None,
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
        label: None,
        source: wgpu::ShaderSource::Wgsl(shader.into()),
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: None,
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: Default::default(),
        cache: None,
    });
    let entries: Vec<wgpu::BindGroupEntry<'_>> = bindings
        .iter()
        .map(|b| wgpu::BindGroupEntry {
            binding: number(b, "binding") as u32,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer: &buffers[number(b, "buffer") as usize],
                offset: number(b, "offset"),
                size: wgpu::BufferSize::new(number(b, "bytes")),
            }),
        })
        .collect();
    let group = device.create_bind_group(&wgpu::BindGroupDescriptor {
        label: None,
        layout: &layout,
        entries: &entries,
    });
    let groups = items(dispatch, "workgroups");
    let [x, y, z] = [0, 1, 2].map(|i| groups[i].as_u64().unwrap() as u32);
    let mut pass = encoder.begin_compute_pass(&Default::default());
    pass.set_pipeline(&pipeline);
    pass.set_bind_group(0, &group, &[]);
    pass.dispatch_workgroups(x, y, z);
}

/// Bytes that look like noise.
fn noise(len: usize) -> Vec<u8> {
    let byte = |i: usize| (i.wrapping_mul(2_654_435_761) >> 11) as u8;
    (0..len).map(byte).collect()
}

/// Both sides compute in f32 and differ in the order of sums only: of `n` layers each adds a
/// relative error of some 1e-6 at most, and 1e-4 of the largest logit covers all presets.
const BOUND: f32 = 1e-4;

fn assert_close(found: &[f32], expected: &[f32], bound: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let scale = expected.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
    assert!(scale > 0.0, "{what}: all logits are zero");
    for (f, e) in found.iter().zip(expected) {
        assert!(
            (f - e).abs() <= bound * scale,
            "{what}: {found:?} {expected:?}"
        );
    }
}

fn expected(model: &Model, weights: &Weights, image: &[u8]) -> Vec<f32> {
    let gpu = support::open(ProfileKind::CpuLike, true);
    let backend = Box::new(GpuBackend::new(gpu).unwrap());
    let mut predictor = Predictor::new(model, weights, 1, backend).unwrap();
    predictor.logits(image).unwrap().remove(0)
}

#[test]
fn the_files_alone_give_the_logits_with_default_limits() {
    let inverted = Model::from_toml(INVERTED, "inverted").unwrap();
    for model in [Model::load("lenet5").unwrap(), inverted] {
        let files = Files::new();
        let weights = model.initial_weights(3);
        let classes: Vec<String> = (0..model.classes()).map(|c| c.to_string()).collect();
        let folder = files.path("web");
        let done = web::export(&model, &weights, &classes, &folder).unwrap();
        let written: u64 = ["", "shaders"]
            .iter()
            .flat_map(|f| std::fs::read_dir(folder.join(f)).unwrap())
            .map(|entry| entry.unwrap().metadata().unwrap())
            .filter(std::fs::Metadata::is_file)
            .map(|m| m.len())
            .sum();
        assert_eq!(done.bytes, written);
        let image = noise(model.input().iter().product());
        let found = replay(&folder, &image);
        assert_close(
            &found,
            &expected(&model, &weights, &image),
            BOUND,
            model.name(),
        );
    }
}

/// Strides, depthwise and residual, as in MobileNet.
const INVERTED: &str = r#"
name = "inverted"
input = [3, 13, 10]
normalization = { scale = 0.02, mean = [0.1, 0.2, 0.3], std = [1.5, 2.0, 0.5] }
layer = [
    { type = "conv2d", filters = 6, kernel = 3, stride = 2, padding = "same", bias = false },
    { type = "batch_norm2d", name = "trunk" },
    { type = "conv2d", filters = 9, kernel = 1, activation = "silu" },
    { type = "depthwise_conv2d", kernel = 3, padding = "same", activation = "relu" },
    { type = "conv2d", filters = 6, kernel = 1, name = "branch" },
    { type = "add", inputs = ["trunk", "branch"], activation = "gelu" },
    { type = "avg_pool2d", size = 2, padding = "same" },
    { type = "global_avg_pool" },
    { type = "dense", units = 5 },
]
"#;

#[test]
fn a_model_beyond_the_default_limits_is_refused() {
    let files = Files::new();
    // A dense weight of 160 MB.
    let text = "name = 'wide'\ninput = [1, 100, 100]\n\
        layer = [{ type = 'flatten' }, { type = 'dense', units = 4000 }, { type = 'dense', units = 2 }]";
    let model = Model::from_toml(text, "wide").unwrap();
    let weights = model.initial_weights(0);
    let error = web::export(&model, &weights, &[], &files.path("web")).unwrap_err();
    let error = error.to_string();
    assert!(
        error.contains("fc1") && error.contains("max_storage_buffer_binding_size"),
        "{error}"
    );
    assert!(!files::exists(&files.path("web")));
}

/// The test's own page: logits and probabilities of an image go back to the test.
const PROBE: &str = r#"<!doctype html><link rel="icon" href="data:,"><script type="module">
let result;
try {
    const { Model, decode } = await import("./gpucnn.js");
    const model = await Model.load("./");
    const blob = await (await fetch("./probe.png")).blob();
    const pixels = await decode(blob, model.plan.input, model.device);
    const clear = await (await fetch("./clear.png")).blob();
    const transparent = await decode(clear, model.plan.input, model.device);
    const logits = await model.run(pixels);
    const top = await model.classify(blob, 3);
    result = { pixels: [...pixels], transparent: [...transparent], logits: [...logits], top, adapter: model.adapter.architecture };
} catch (error) {
    result = { error: `${error}` };
}
await fetch("./result", { method: "POST", body: JSON.stringify(result) });
</script>"#;

/// What makes the export's own page a test: an image is dropped before the model is there, and
/// what the page then shows goes back.
const EARLY: &str = r#"<script>
const stored = fetch;
let dropped = false;
window.fetch = async (...args) => {
    if (!dropped && `${args[0]}`.endsWith("plan.json")) {
        dropped = true;
        const blob = await (await stored("./probe.png")).blob();
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([blob], "probe.png", { type: "image/png" }));
        dispatchEvent(new DragEvent("drop", { dataTransfer, cancelable: true }));
        window.said = document.getElementById("said").textContent;
    }
    return stored(...args);
};
const poll = setInterval(() => {
    const rows = [...document.querySelectorAll('#top tr')];
    const said = document.getElementById("said");
    if (rows.length === 0 && !said.classList.contains("wrong")) return;
    clearInterval(poll);
    const classes = rows.map((row) => row.firstChild.textContent);
    const result = { classes, before: window.said, after: said.textContent };
    stored("./result", { method: "POST", body: JSON.stringify(result) });
}, 20);
</script>"#;

/// Answers a request from the folder; the body of a POST.
fn answer(mut stream: TcpStream, folder: &Path) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    let (head, mut body) = loop {
        let read = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
        request.extend(&chunk[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let at = head.len() + 4;
            break (head.to_owned(), request[at..].to_vec());
        }
    };
    if head.starts_with("POST") {
        let length = head.lines().find_map(|l| {
            l.to_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        });
        let length: usize = length.expect("a length");
        while body.len() < length {
            let read = stream.read(&mut chunk).ok().filter(|n| *n > 0)?;
            body.extend(&chunk[..read]);
        }
        let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
        return Some(body);
    }
    let path = head.split(' ').nth(1)?.trim_start_matches('/');
    let kind = match path.rsplit('.').next() {
        Some("html") => "text/html",
        Some("js") => "text/javascript",
        _ => "application/octet-stream",
    };
    let (status, content) = match std::fs::read(folder.join(path)) {
        Ok(content) => ("200 OK", content),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        content.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), &content].concat());
    None
}

/// What a page of the folder tells, in headless Chromium with SwiftShader.
fn in_chromium(folder: &Path, page: &str, profile: &Path) -> Value {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/{page}", listener.local_addr().unwrap());
    let mut browser = Command::new("chromium")
        .args([
            "--headless",
            "--no-sandbox",
            "--no-first-run",
            "--disable-gpu-sandbox",
        ])
        .args(["--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"])
        .args([
            "--enable-features=Vulkan",
            &format!("--user-data-dir={}", profile.display()),
            &url,
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium is installed");
    let begin = Instant::now();
    let result = loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .unwrap();
                if let Some(body) = answer(stream, folder) {
                    break Some(body);
                }
            }
            Err(_) if begin.elapsed() > Duration::from_secs(300) => break None,
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let _ = browser.kill();
    let _ = browser.wait();
    serde_json::from_slice(&result.expect("the page answers")).unwrap()
}

#[test]
#[ignore = "needs Chromium with SwiftShader; .ci/run runs it"]
fn a_browser_gives_what_predict_gives() {
    let inverted = Model::from_toml(INVERTED, "inverted").unwrap();
    for model in [Model::load("mnist-cnn").unwrap(), inverted] {
        let files = Files::new();
        let name = model.name();
        let weights = model.initial_weights(3);
        files.write("run/model.toml", model.to_toml().unwrap());
        safetensors::save(
            &files.path("run/weights.safetensors"),
            &weights,
            &BTreeMap::new(),
        )
        .unwrap();
        // Neither the model's size nor grey: both sides resize and convert it, to the same bytes.
        let picture = image::RgbImage::from_raw(61, 47, noise(3 * 61 * 47)).unwrap();
        let picture = image::imageops::blur(&picture, 2.0);
        let path = files.text("probe.png");
        picture.save(&path).unwrap();

        let args = ["predict", "run", &path, "--json"];
        let predicted = gpucnn(&files, &args).output().unwrap();
        let predicted = &json_lines(&predicted.stdout)[0]["top"];
        let args = ["export", "run", "--format", "web"];
        assert!(gpucnn(&files, &args).output().unwrap().status.success());
        let folder = files.path("run/web");
        files.write("run/web/probe.html", PROBE);
        std::fs::copy(&path, folder.join("probe.png")).unwrap();
        // Wider than what is read back at a time, with colours under any transparency.
        let clear = image::RgbaImage::from_raw(2100, 5, noise(4 * 2100 * 5)).unwrap();
        clear.save(folder.join("clear.png")).unwrap();
        let result = in_chromium(&folder, "probe.html", &files.path("profile"));
        assert!(result["error"].is_null(), "{result}");
        let load = |path: &Path| gpucnn::data::image::load(path, model.input()).unwrap();
        let pixels = load(Path::new(&path));
        for (key, expected) in [
            ("pixels", &pixels),
            ("transparent", &load(&folder.join("clear.png"))),
        ] {
            let found: Vec<u8> = serde_json::from_value(result[key].clone()).unwrap();
            let apart = expected.iter().zip(&found).filter(|(a, b)| a != b).count();
            assert_eq!((found.len(), apart), (expected.len(), 0), "{name}: {key}");
        }
        let logits: Vec<f32> = serde_json::from_value(result["logits"].clone()).unwrap();
        assert_close(&logits, &expected(&model, &weights, &pixels), BOUND, name);
        for (found, expected) in items(&result, "top")
            .iter()
            .zip(predicted.as_array().unwrap())
        {
            assert_eq!(found["class"], expected["class"]);
            let [f, e] = [found, expected].map(|p| p["probability"].as_f64().unwrap());
            assert!((f - e).abs() < 1e-4, "{f} {e}");
        }
        dropped_early(&files, predicted);
    }
}

/// An image that is dropped before the model is there is classified once it is.
fn dropped_early(files: &Files, predicted: &Value) {
    let folder = files.path("run/web");
    let page = std::fs::read_to_string(folder.join("index.html")).unwrap();
    let script = "<script type=\"module\">";
    assert_eq!(page.matches(script).count(), 1);
    let page = page.replace(script, &format!("{EARLY}{script}"));
    files.write("run/web/early.html", page);
    let result = in_chromium(&folder, "early.html", &files.path("profile"));
    assert_eq!(result["before"], "The model is loading …", "{result}");
    let after = result["after"].as_str().unwrap();
    assert!(after.ends_with(" ms"), "{result}");
    let first = items(&result, "classes")[0].clone();
    assert_eq!(first, predicted[0]["class"], "{result}");
}
