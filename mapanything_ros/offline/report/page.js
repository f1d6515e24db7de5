'use strict';
(() => {
  const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const axes = layout => Object.keys(layout).filter(key => /^[xy]axis\d*$/.test(key));

  // What of a figure follows the page, light or dark.
  const themed = layout => {
    const changes = {
      paper_bgcolor: 'rgba(0,0,0,0)', plot_bgcolor: 'rgba(0,0,0,0)', 'font.color': colour('--text'),
    };
    for (const axis of axes(layout)) {
      changes[`${axis}.gridcolor`] = colour('--line');
      changes[`${axis}.zerolinecolor`] = colour('--line');
    }
    if (layout.scene) {
      for (const axis of ['xaxis', 'yaxis', 'zaxis']) {
        changes[`scene.${axis}.gridcolor`] = colour('--line');
        changes[`scene.${axis}.zeroline`] = false;
        changes[`scene.${axis}.showbackground`] = false;
      }
    }
    return changes;
  };

  // The field of view is that of the height: where a place is narrow, the eye steps back.
  const fitted = place => {
    const narrow = 1.4 * place.clientHeight / place.clientWidth;
    if (!place.layout.scene || narrow < 1) {
      return {};
    }
    const {x, y, z} = place.layout.scene.camera.eye;
    return {'scene.camera.eye': {x: x * narrow, y: y * narrow, z: z * narrow}};
  };

  const draw = async source => {
    const place = document.getElementById(source.dataset.for);
    const figure = JSON.parse(source.textContent);
    const layout = {
      margin: {l: 56, r: 16, t: 12, b: 44}, font: {family: 'system-ui, sans-serif', size: 12},
      ...figure.layout,
    };
    await Plotly.newPlot(place, figure.data, layout, {
      responsive: true, displaylogo: false, scrollZoom: Boolean(layout.scene),
      displayModeBar: layout.scene ? 'hover' : false,
      modeBarButtons: [['orbitRotation', 'pan3d', 'resetCameraDefault3d', 'toImage']],
    });
    await Plotly.relayout(place, {...themed(place.layout), ...fitted(place)});
    return place;
  };

  // A ceiling hides a room from above: the slider cuts it off, at the same scale.
  const cut = (map, slider) => {
    const [low, high] = map.layout.scene.zaxis.range;
    const tall = map.layout.scene.aspectratio.z;
    const apply = () => {
      const top = Number(slider.value);
      const output = slider.parentElement.querySelector('output');
      output.value = `z = ${top.toFixed(2)} ${output.dataset.unit}`;
      return Plotly.relayout(map, {
        'scene.zaxis.range': [low, top],
        'scene.aspectratio.z': tall * (top - low) / (high - low),
      });
    };
    slider.addEventListener('input', apply);
    return apply();
  };

  const main = async () => {
    const sources = document.querySelectorAll('script[data-for]');
    const drawn = await Promise.all(Array.from(sources, draw));
    await cut(document.getElementById('map'), document.getElementById('cut'));
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
      drawn.forEach(place => Plotly.relayout(place, themed(place.layout)));
    });
    document.body.dataset.ready = 'true';
  };
  main();
})();
