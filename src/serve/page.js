// The page of `gpucnn serve`: images go to /v1/predict as they are.
const reply = await fetch("v1/model");
const model = await reply.json();

start({
    title: model.name,
    note: `${model.input.join(" x ")}, ${model.parameters.toLocaleString("en")} parameters, on ${model.device}`,
    async classify(file) {
        const response = await fetch("v1/predict?top=5", {
            method: "POST",
            headers: { "content-type": file.type || "application/octet-stream" },
            body: file,
        });
        const answer = await response.json();
        if (!response.ok) throw new Error(answer.error);
        return answer.predictions[0].top;
    },
});
