//! `treeline report`: the data, and the page in a real browser.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use bed::netns::Bed;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    learning::learn,
    support::{
        agent::Site,
        browser::{self, Browser},
        json::documented,
        missing, privileged,
    },
};

/// Boxes of all pictures, and how many shapes each has.
const FIGURES: &str = "[...document.querySelectorAll('figure svg')].map(svg => {
    const box = svg.getBoundingClientRect();
    return { width: box.width, height: box.height, right: box.right, name: svg.getAttribute('aria-label'),
             shapes: svg.querySelectorAll('rect, circle, polyline').length, said: svg.textContent.trim().length };
})";

/// The text that stands out least from its ground: ratio of luminances as WCAG 2 defines it.
const FAINTEST: &str = "(() => {
    const parts = colour => colour.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = element => {
        for (let it = element; it; it = it.parentElement) {
            const colour = parts(getComputedStyle(it).backgroundColor);
            if (colour.length < 4 || colour[3] > 0) return colour;
        }
        return [255, 255, 255];
    };
    let faintest = { ratio: 100 };
    const nodes = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    while (nodes.nextNode()) {
        const text = nodes.currentNode.textContent.trim();
        if (!text || text === '■') continue;
        const element = nodes.currentNode.parentElement;
        const style = getComputedStyle(element);
        const own = light(parts(element instanceof SVGElement ? style.fill : style.color));
        const behind = light(ground(element));
        const ratio = (Math.max(own, behind) + 0.05) / (Math.min(own, behind) + 0.05);
        if (ratio < faintest.ratio) faintest = { ratio, text, own, behind };
    }
    return faintest;
})()";

/// Writes a report and returns its path and its data.
#[track_caller]
fn report(site: &Site<'_>, folder: &Path, name: &str) -> (PathBuf, Value) {
    let file = folder.join(name);
    let out = file.to_str().unwrap();
    let data = site.call(&["report", "--format", "json"]).expect(0).json();
    documented("report", &data);
    site.call(&["report", "--out", out]).expect(0).says(out);
    let page = fs::read_to_string(&file).unwrap();
    let alien = page
        .replace("http://www.w3.org/2000/svg", "")
        .replace("http-equiv", "");
    for sign in ["http", "src=", "url(", "<script", "<link", "@import"] {
        assert!(!alien.contains(sign), "{sign} in the page");
    }
    // For who wants to look at them.
    if let Some(kept) = env::var_os("TREELINE_KEEP_PAGES") {
        fs::copy(&file, Path::new(&kept).join(name)).unwrap();
    }
    (file, data)
}

#[test]
fn a_real_run_is_told_of_and_the_page_stands_in_a_real_browser() {
    if !privileged() {
        return;
    }
    let bed = Bed::host().unwrap();
    let site = Site::new(&bed.server);
    let folder = tempfile::tempdir().unwrap();
    let (empty, data) = report(&site, folder.path(), "empty.html");
    let headline = data["headline"].as_str().unwrap();
    assert!(
        headline.contains("has not worked on this host yet"),
        "{headline}"
    );
    assert!(
        data["next"][1]["command"]
            .as_str()
            .unwrap()
            .contains("--observe")
    );
    assert!(data["model"].is_null() && data["worth"].is_null());

    let agent = site.run(&["--train-every", "2s", "--min-samples", "200"]);
    let generation = learn(&bed, &site);
    let (full, data) = report(&site, folder.path(), "full.html");
    tells_of_a_model(&data, generation);
    assert!(agent.end(Signal::SIGTERM).0.success());
    site.down().expect(0);
    // What was learned outlives the agent and the programs.
    let (after, data) = report(&site, folder.path(), "after.html");
    assert!(data["now"]["interfaces"].as_array().unwrap().is_empty());
    assert!(data["model"]["generation"].as_u64() >= Some(1) && data["worth"].is_object());
    assert!(
        data["headline"]
            .as_str()
            .unwrap()
            .contains("schedules no interface now")
    );
    // What can't be read is counted, and hinders nothing.
    fs::write(site.instance.models().join("000900.json"), "{").unwrap();
    let (_, damaged) = report(&site, folder.path(), "damaged.html");
    assert_eq!(damaged["unreadable"], 1);

    let Some(program) = browser::program() else {
        missing(
            "browser",
            "no browser is here, so the page of the report was not looked at: `apt-get install chromium`",
        );
        return;
    };
    let mut browser = Browser::start(&program);
    for scheme in ["light", "dark"] {
        stands(&mut browser, &empty, (scheme, 1100), 0);
        stands(&mut browser, &full, (scheme, 1100), 3);
        stands(&mut browser, &after, (scheme, 390), 2);
    }
    let printed = browser.ask(
        "Page.printToPDF",
        serde_json::json!({ "printBackground": true }),
    );
    let pdf = printed["data"].as_str().unwrap();
    // `%PDF-` in base64.
    assert!(
        pdf.starts_with("JVBERi") && pdf.len() > 20_000,
        "{} bytes",
        pdf.len()
    );
}

#[track_caller]
fn tells_of_a_model(data: &Value, generation: u32) {
    let headline = data["headline"].as_str().unwrap();
    assert!(
        headline.starts_with("treeline schedules the packets on ")
            && headline.contains("uplink")
            && headline.contains("is in charge"),
        "{headline}"
    );
    assert!(data["model"]["generation"].as_u64() >= Some(u64::from(generation)));
    assert!(data["model"]["rules"].as_array().unwrap().len() > 1);
    assert!(data["model"]["importances"][0]["share"].as_f64() > Some(0.0));
    let worth = &data["worth"];
    assert!(worth["messages"].as_u64() >= Some(50), "{worth}");
    let services = worth["services"].as_array().unwrap();
    assert!(
        services
            .iter()
            .any(|it| it["name"].as_str().unwrap().starts_with("tcp ")),
        "{worth}"
    );
    let of = |what: &str| worth["all"][what]["all"]["mean_fct_ms"].as_f64().unwrap();
    assert!(of("fifo") > of("aging") && of("aging") > 0.0, "{worth}");
    let promoted = data["decisions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|it| it["step"] == "promoted");
    let undo = promoted.expect("the model was put to work")["undo"]
        .as_str()
        .unwrap();
    assert!(undo.contains("model rollback"), "{undo}");
    let bands = data["now"]["interfaces"][0]["bands"].as_array().unwrap();
    assert!(bands.iter().all(|band| band["bytes"].is_u64()) && bands.len() == 8);
    let steps = &data["steps"];
    assert!(
        steps["trained"].as_u64() >= steps["promoted"].as_u64(),
        "{steps}"
    );
}

/// Opens the page and fails unless it is whole, quiet and readable, and asks nobody for anything.
#[track_caller]
fn stands(browser: &mut Browser, file: &Path, (scheme, width): (&str, u32), figures: usize) {
    let loaded = browser.open(file, scheme, width);
    let shown = format!("{} in {scheme}, {width} wide", file.display());
    assert_eq!(loaded.complaints, [""; 0], "{shown}");
    assert_eq!(
        loaded.requests,
        [format!("file://{}", file.display())],
        "{shown}"
    );
    let seen = browser.value(FIGURES);
    let seen = seen.as_array().unwrap();
    assert_eq!(seen.len(), figures, "{shown}: {seen:?}");
    for figure in seen {
        let of = |what: &str| figure[what].as_f64().unwrap();
        assert!(
            of("width") > 250.0 && of("height") > 100.0,
            "{shown}: {figure}"
        );
        assert!(of("right") <= f64::from(width), "{shown}: {figure}");
        assert!(of("shapes") > 3.0 && of("said") > 20.0, "{shown}: {figure}");
        assert!(
            figure["name"].as_str().unwrap().len() > 10,
            "{shown}: {figure}"
        );
    }
    let wide = browser.value("document.documentElement.scrollWidth");
    assert!(
        wide.as_u64() <= Some(u64::from(width)),
        "{shown}: {wide} wide"
    );
    let faintest = browser.value(FAINTEST);
    assert!(
        faintest["ratio"].as_f64() >= Some(4.5),
        "{shown}: {faintest}"
    );
    let ground = browser.value("getComputedStyle(document.body).backgroundColor");
    let is_light = ground == "rgb(255, 255, 255)";
    assert_eq!(is_light, scheme == "light", "{shown}: {ground}");
}
