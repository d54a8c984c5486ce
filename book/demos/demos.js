// Brings the demos of a page to life: each `<div class="demo" data-demo="NAME">` holds a static
// figure, which stays where scripts are off or the demo cannot be loaded. The module `NAME.js` draws
// the demo, and the crates of the workspace compute it, in WebAssembly.
(() => {
    "use strict";
    let engine; // The WebAssembly module, loaded once, by the first demo that comes into view.

    function load() {
        engine ??= import("./wasm.js").then(async (wasm) => {
            await wasm.default();
            return wasm;
        });
        return engine;
    }

    async function start(demo) {
        const stage = document.createElement("div");
        stage.className = "demo-stage";
        // The book turns its pages with the arrow keys; here they move sliders and cursors.
        stage.addEventListener("keydown", (event) => event.stopPropagation());
        try {
            const [wasm, page] = await Promise.all([
                load(),
                import(`./${demo.dataset.demo}.js`),
                import("./controls.js").then((controls) => controls.fontsReady()),
            ]);
            demo.append(stage);
            page.mount(stage, wasm);
            demo.classList.add("alive");
        } catch (error) {
            stage.remove();
            demo.append(reason(error));
            demo.classList.add("failed");
            console.warn(`the demo ${demo.dataset.demo} cannot start:`, error);
        }
    }

    function reason(error) {
        const line = document.createElement("p");
        line.className = "demo-reason";
        line.textContent = location.protocol === "file:"
            ? "A browser runs this demo only from a server: cargo xtask book --serve"
            : `The demo cannot start in this browser (${error.message}); the figure shows one of its states.`;
        return line;
    }

    const seen = new IntersectionObserver(
        (entries) => {
            for (const entry of entries.filter((entry) => entry.isIntersecting)) {
                seen.unobserve(entry.target);
                start(entry.target);
            }
        },
        { rootMargin: "200px" },
    );
    document.querySelectorAll(".demo[data-demo]").forEach((demo) => seen.observe(demo));
})();
