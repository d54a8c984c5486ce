// A demo that is not written yet.

export function mount(stage, wasm) {
    throw new Error("not written yet");
}
