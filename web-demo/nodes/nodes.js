// Two nodes' demo pages side by side, and a button for each part that can be killed. What runs is asked for twice a second.
const token = document.querySelector('meta[name="token"]').content;
const parts = document.getElementById("parts");
const pages = document.getElementById("pages");
const said = document.getElementById("said");
const LOOK_MS = 500;

async function kill(name) {
  const answer = await fetch(`/kill?${encodeURIComponent(name)}`, { method: "POST", headers: { "X-Token": token } });
  said.textContent = answer.ok ? `${name} is killed; it comes back in some seconds.` : `${name}: refused (${answer.status})`;
}

function buttonOf(name) {
  const id = name.replace(" ", "-");
  let button = document.getElementById(id);
  if (!button) {
    button = document.createElement("button");
    button.id = id;
    button.onclick = () => kill(name);
    parts.append(button);
  }
  return button;
}

function show(part) {
  const button = buttonOf(part.name);
  const state = !part.up ? "down" : part.ready === false ? "starting" : "up";
  button.dataset.state = state;
  button.disabled = state === "down";
  button.textContent = `kill ${part.name}`;
  button.title = state;
}

function showPages(nodes) {
  if (pages.children.length > 0) return;
  for (const node of nodes.slice(0, 2)) {
    const section = document.createElement("section");
    const title = document.createElement("h2");
    const frame = document.createElement("iframe");
    title.textContent = `${node.name}, port ${node.http}`;
    frame.src = `http://127.0.0.1:${node.http}/demo/`;
    frame.title = node.name;
    section.append(title, frame);
    pages.append(section);
  }
}

async function look() {
  try {
    const state = await (await fetch("/state")).json();
    [...state.nodes, ...state.parts].forEach(show);
    showPages(state.nodes);
  } catch (error) {
    said.textContent = `the demo does not answer: ${error.message}`;
  }
  setTimeout(look, LOOK_MS);
}

look();
