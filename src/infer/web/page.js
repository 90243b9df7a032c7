// The page of the web export: images stay in the browser.
const { Model } = await import("./gpucnn.js");
const model = await Model.load("./");
const { name, input, parameters } = model.plan;
const adapter = [model.adapter.vendor, model.adapter.architecture].filter(Boolean).join(" ") || "WebGPU";

start({
    title: name,
    note: `${input.join(" x ")}, ${parameters.toLocaleString("en")} parameters, on ${adapter}, in this browser`,
    classify: (file) => model.classify(file),
});
