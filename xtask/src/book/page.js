// Runs in a page: says what is wrong with its layout and its requests.
() => {
    const problems = [];
    const wide = document.documentElement.scrollWidth - innerWidth;
    if (wide > 0) problems.push(`it is ${wide} px too wide`);
    if (innerWidth > 600) {
        for (const code of document.querySelectorAll(".content pre > code")) {
            const cut = code.scrollWidth - code.clientWidth;
            if (code.clientWidth > 0 && cut > 1) {
                problems.push(`a block of code is ${cut} px too wide: ${code.textContent.slice(0, 40)}`);
            }
        }
    }
    for (const { name } of performance.getEntriesByType("resource")) {
        if (!name.startsWith(location.origin)) problems.push(`it asks for ${name}`);
    }
    // Two tildes in a line, which accents of formulas have too, would strike out what is between them.
    for (const struck of document.querySelectorAll(".content del, .katex-error")) {
        problems.push(`a formula is broken: ${struck.textContent.slice(0, 40)}`);
    }
    const broken = [...document.images].filter((image) => image.complete && image.naturalWidth === 0);
    for (const image of broken) problems.push(`it shows no ${image.src}`);
    const silent = [...document.querySelectorAll(".content img")].filter((image) => !image.alt);
    for (const image of silent) problems.push(`${image.src} has no text for those who do not see it`);
    return problems;
}
