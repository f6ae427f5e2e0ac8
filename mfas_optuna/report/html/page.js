// Draws the plots of a report from the data beside them; one at a time, so that the page can be read meanwhile.
(function () {
  "use strict";
  var PRINT_WIDTH = 640;
  var isTouch = window.matchMedia("(pointer: coarse)").matches;
  var isNarrow = window.matchMedia("(max-width: 40rem)").matches; // The buttons would cover the legend.
  var config = {
    displayModeBar: isTouch || isNarrow ? false : "hover",
    responsive: true,
    displaylogo: false,
    showTips: false,
    plotlyServerURL: "",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
  };
  var nodes = Array.prototype.slice.call(document.querySelectorAll("[data-figure]"));

  function draw(position) {
    if (position === nodes.length) {
      document.documentElement.setAttribute("data-drawn", "true");
      return;
    }
    var node = nodes[position];
    var figure = JSON.parse(document.getElementById(node.getAttribute("data-figure")).textContent);
    if (isTouch) figure.layout.dragmode = false; // A finger scrolls the page.
    Plotly.newPlot(node, figure.data, figure.layout, config).then(function () {
      window.setTimeout(draw, 0, position + 1);
    });
  }

  window.addEventListener("beforeprint", function () {
    nodes.forEach(function (node) {
      if (node.layout) Plotly.relayout(node, { width: PRINT_WIDTH });
    });
  });
  window.addEventListener("afterprint", function () {
    nodes.forEach(function (node) {
      if (node.layout) Plotly.relayout(node, { width: null, autosize: true });
    });
  });
  draw(0);
})();
