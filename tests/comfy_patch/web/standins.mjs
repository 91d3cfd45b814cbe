// Stand-ins of the few parts of ComfyUI's front end that the modules look at.

/** A node with widgets `{name: value}`; each has its input slot. */
export function node(id, widgets = {}, properties = {}, more = {}) {
  const made = Object.entries(widgets).map(([name, value]) => ({ name, type: typeof value, value, options: {} }));
  const inputs = Object.keys(widgets).map((name) => ({ name, link: null, widget: { name } }));
  return { id, title: `Node ${id}`, properties, widgets: made, inputs, ...more };
}

export function graph(...nodes) {
  return { nodes, getNodeById: (id) => nodes.find((each) => String(each.id) === String(id)), extra: {} };
}

/** A subgraph whose inputs lead to inner ones: {outer: [[inner id, inner input], …]}. */
export function subgraph(inputs, ...nodes) {
  const links = new Map();
  const slots = Object.entries(inputs).map(([name, targets]) => ({
    name,
    linkIds: targets.map(([id, input]) => {
      const inner = nodes.find((each) => each.id === id);
      links.set(links.size + 1, { target_id: id, target_slot: inner.inputs.findIndex((each) => each.name === input) });
      return links.size;
    }),
  }));
  return { ...graph(...nodes), inputs: slots, getLink: (id) => links.get(id) };
}

/** What Export (API) makes of plain nodes. */
export function output(...nodes) {
  return Object.fromEntries(
    nodes.map((each) => [
      String(each.id),
      {
        class_type: "Some",
        inputs: Object.fromEntries(each.widgets.map(({ name, value }) => [name, value])),
        _meta: { title: each.title },
      },
    ]),
  );
}
