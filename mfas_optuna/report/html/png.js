// Draws the one figure of a page that is to be photographed.
(function () {
  "use strict";
  var figure = JSON.parse(document.getElementById("figure").textContent);
  Plotly.newPlot("plot", figure.data, figure.layout, { staticPlot: true });
})();
