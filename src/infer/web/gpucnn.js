// Runs a model that `gpucnn export --format web` wrote, in any browser with WebGPU.
//
//     import { Model } from "./gpucnn.js";
//     const model = await Model.load("./");
//     const [best] = await model.classify(blob);      // {class, probability}
//     const logits = await model.run(pixels);         // bytes in the order [C, H, W]

export class Model {
    /** Reads the export's files below `base` and makes them ready on the GPU. */
    static async load(base = "./") {
        if (!navigator.gpu) throw new Error("This browser has no WebGPU, or the page is neither on https nor on localhost.");
        const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
        if (!adapter) throw new Error("This browser has WebGPU, but no GPU for it.");
        const [device, plan, weights] = await Promise.all([
            adapter.requestDevice(),
            fetched(`${base}plan.json`).then((r) => r.json()),
            fetched(`${base}weights.bin`).then((r) => r.arrayBuffer()),
        ]);
        if (plan.version !== 1) throw new Error(`plan.json has version ${plan.version}, this script reads version 1.`);
        const shaders = await Promise.all(plan.shaders.map((name) => fetched(`${base}shaders/${name}`).then((r) => r.text())));
        device.pushErrorScope("validation");
        const model = new Model(device, plan, weights, shaders);
        model.dispatches = await Promise.all(plan.dispatches.map((d) => model.#prepare(d)));
        const error = await device.popErrorScope();
        if (error) throw new Error(error.message);
        return model;
    }

    #busy = Promise.resolve();

    constructor(device, plan, weights, shaders) {
        this.device = device;
        this.plan = plan;
        this.adapter = device.adapterInfo;
        const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC;
        this.buffers = plan.buffers.map(({ name, bytes, content }) => {
            const uniform = name === "step" ? GPUBufferUsage.UNIFORM : 0;
            const buffer = device.createBuffer({ label: name, size: bytes, usage: usage | uniform });
            if (content) device.queue.writeBuffer(buffer, 0, weights, content.offset, bytes);
            return buffer;
        });
        this.modules = shaders.map((code, i) => device.createShaderModule({ label: plan.shaders[i], code }));
        this.pipelines = new Map();
        this.readback = device.createBuffer({
            size: plan.buffers[plan.logits].bytes,
            usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
        });
    }

    /** The pipeline and bind group of a dispatch. */
    async #prepare({ layer, shader, bindings, workgroups }) {
        if (!this.pipelines.has(shader)) this.pipelines.set(shader, this.#pipeline(shader, bindings));
        const { pipeline, layout } = await this.pipelines.get(shader);
        const group = this.device.createBindGroup({
            label: layer,
            layout,
            entries: bindings.map(({ binding, buffer, offset, bytes }) => ({
                binding,
                resource: { buffer: this.buffers[buffer], offset, size: bytes },
            })),
        });
        return { pipeline, group, workgroups };
    }

    async #pipeline(shader, bindings) {
        const layout = this.device.createBindGroupLayout({
            entries: bindings.map(({ binding, type }) => ({ binding, visibility: GPUShaderStage.COMPUTE, buffer: { type } })),
        });
        const pipeline = await this.device.createComputePipelineAsync({
            label: this.plan.shaders[shader],
            layout: this.device.createPipelineLayout({ bindGroupLayouts: [layout] }),
            compute: { module: this.modules[shader], entryPoint: "main" },
        });
        return { pipeline, layout };
    }

    /** The logits of an image given as bytes in the order [C, H, W]. */
    run(pixels) {
        const done = this.#busy.then(() => this.#run(pixels));
        this.#busy = done.catch(() => {});
        return done;
    }

    async #run(pixels) {
        const [c, h, w] = this.plan.input;
        if (pixels.length !== c * h * w) throw new Error(`Expected ${c} x ${h} x ${w} = ${c * h * w} bytes, found ${pixels.length}.`);
        const { device, plan } = this;
        // A whole number of 32-bit words.
        const words = new Uint8Array(plan.buffers[plan.image].bytes);
        words.set(pixels);
        device.queue.writeBuffer(this.buffers[plan.image], 0, words);
        const encoder = device.createCommandEncoder();
        const pass = encoder.beginComputePass();
        for (const { pipeline, group, workgroups } of this.dispatches) {
            pass.setPipeline(pipeline);
            pass.setBindGroup(0, group);
            pass.dispatchWorkgroups(...workgroups);
        }
        pass.end();
        encoder.copyBufferToBuffer(this.buffers[plan.logits], 0, this.readback, 0, this.readback.size);
        device.queue.submit([encoder.finish()]);
        await this.readback.mapAsync(GPUMapMode.READ);
        const logits = new Float32Array(this.readback.getMappedRange().slice(0, 4 * plan.classes.length));
        this.readback.unmap();
        return logits;
    }

    /** The likeliest classes of a PNG or JPEG blob. */
    async classify(blob, top = 5) {
        const pixels = await decode(blob, this.plan.input, this.device);
        const probabilities = softmax(await this.run(pixels));
        return probabilities
            .map((probability, i) => ({ class: this.plan.classes[i], probability }))
            .sort((a, b) => b.probability - a.probability)
            .slice(0, top);
    }
}

async function fetched(url) {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`${url}: ${response.status} ${response.statusText}`);
    return response;
}

export function softmax(logits) {
    const largest = Math.max(...logits);
    const powers = Array.from(logits, (x) => Math.exp(x - largest));
    const sum = powers.reduce((a, b) => a + b);
    return powers.map((p) => p / sum);
}

/** A PNG or JPEG blob as bytes in the order [C, H, W], as `gpucnn predict` reads it. */
export async function decode(blob, [channels, rows, columns], device) {
    const options = { colorSpaceConversion: "none", premultiplyAlpha: "none" };
    const bitmap = await createImageBitmap(blob, options);
    const { width, height } = bitmap;
    const data = await read(device, bitmap);
    const planes = [0, 1, 2].map((c) => resize(data, c, [height, width], [rows, columns]));
    const plane = rows * columns;
    const pixels = new Uint8Array(channels * plane);
    if (channels === 3) planes.forEach((p, c) => pixels.set(p, c * plane));
    else for (let i = 0; i < plane; i++) pixels[i] = Math.floor((2126 * planes[0][i] + 7152 * planes[1][i] + 722 * planes[2][i] + 5000) / 10000);
    return pixels;
}

/** The RGBA bytes of a bitmap. A canvas would give colours that were multiplied by alpha and divided again. */
async function read(device, bitmap) {
    const { width, height } = bitmap;
    const data = new Uint8Array(4 * width * height);
    const tile = Math.min(2048, device.limits.maxTextureDimension2D);
    for (let y = 0; y < height; y += tile) {
        for (let x = 0; x < width; x += tile) {
            const size = [Math.min(tile, width - x), Math.min(tile, height - y)];
            const pitch = 256 * Math.ceil((4 * size[0]) / 256);
            const bytes = await readTile(device, bitmap, [x, y], size, pitch);
            for (let row = 0; row < size[1]; row++) {
                data.set(bytes.subarray(row * pitch, row * pitch + 4 * size[0]), 4 * ((y + row) * width + x));
            }
        }
    }
    return data;
}

/** A part of a bitmap, `pitch` bytes a row. */
async function readTile(device, bitmap, origin, size, pitch) {
    const usage = GPUTextureUsage.COPY_DST | GPUTextureUsage.COPY_SRC | GPUTextureUsage.RENDER_ATTACHMENT;
    const texture = device.createTexture({ label: "image", size, format: "rgba8unorm", usage });
    device.queue.copyExternalImageToTexture({ source: bitmap, origin }, { texture, premultipliedAlpha: false }, size);
    const buffer = device.createBuffer({
        label: "image",
        size: pitch * size[1],
        usage: GPUBufferUsage.COPY_DST | GPUBufferUsage.MAP_READ,
    });
    const encoder = device.createCommandEncoder();
    encoder.copyTextureToBuffer({ texture }, { buffer, bytesPerRow: pitch }, size);
    device.queue.submit([encoder.finish()]);
    await buffer.mapAsync(GPUMapMode.READ);
    const bytes = new Uint8Array(buffer.getMappedRange().slice(0));
    buffer.destroy();
    texture.destroy();
    return bytes;
}

/** One channel of RGBA bytes, resized with a triangle filter: columns first, then rows, in f32. */
function resize(data, channel, [height, width], [rows, columns]) {
    if (height === rows && width === columns) return Uint8Array.from({ length: rows * columns }, (_, i) => data[4 * i + channel]);
    const tall = new Float32Array(rows * width);
    taps(height, rows).forEach(({ first, weights }, y) => {
        for (let x = 0; x < width; x++) {
            let sum = 0;
            weights.forEach((weight, i) => {
                sum = Math.fround(sum + Math.fround(data[4 * ((first + i) * width + x) + channel] * weight));
            });
            tall[y * width + x] = sum;
        }
    });
    const small = new Uint8Array(rows * columns);
    taps(width, columns).forEach(({ first, weights }, x) => {
        for (let y = 0; y < rows; y++) {
            let sum = 0;
            weights.forEach((weight, i) => {
                sum = Math.fround(sum + Math.fround(tall[y * width + first + i] * weight));
            });
            small[y * columns + x] = Math.floor(Math.min(Math.max(sum, 0), 255) + 0.5);
        }
    });
    return small;
}

/** For each of `to` pixels, the first of `from` that counts and the weights of it and the next ones. */
function taps(from, to) {
    const f = Math.fround;
    const ratio = f(from / to);
    const scale = Math.max(ratio, 1);
    return Array.from({ length: to }, (_, out) => {
        const centre = f(f(out + 0.5) * ratio);
        const first = Math.min(Math.max(Math.floor(f(centre - scale)), 0), from - 1);
        const end = Math.min(Math.max(Math.ceil(f(centre + scale)), first + 1), from);
        const middle = f(centre - 0.5);
        const weights = [];
        let sum = 0;
        for (let i = first; i < end; i++) {
            const weight = f(Math.max(0, f(1 - Math.abs(f(f(i - middle) / scale)))));
            weights.push(weight);
            sum = f(sum + weight);
        }
        return { first, weights: weights.map((w) => f(w / sum)) };
    });
}
