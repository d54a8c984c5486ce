// Runs in a page: says what is wrong with its layout and its requests.
() => {
    const problems = [];
    const wide = document.documentElement.scrollWidth - innerWidth;
    if (wide > 0) problems.push(`it is ${wide} px too wide`);
    for (const { name } of performance.getEntriesByType("resource")) {
        if (!name.startsWith(location.origin)) problems.push(`it asks for ${name}`);
    }
    const broken = [...document.images].filter((image) => image.complete && image.naturalWidth === 0);
    for (const image of broken) problems.push(`it shows no ${image.src}`);
    const silent = [...document.querySelectorAll(".content img")].filter((image) => !image.alt);
    for (const image of silent) problems.push(`${image.src} has no text for those who do not see it`);
    return problems;
}
