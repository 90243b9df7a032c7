"use strict";
// What the pointer is at, in each chart; and a page under training that follows it.
(function () {
  var SVG = "http://www.w3.org/2000/svg";
  function text(value, percent) {
    if (percent) return (100 * value).toFixed(2) + "%";
    var size = Math.abs(value);
    return size && (size < 1e-3 || size >= 1e6) ? value.toExponential(3) : String(+value.toPrecision(5));
  }
  function nearest(points, x) {
    return points.reduce(function (best, p) {
      return Math.abs(p[2] - x) < Math.abs(best[2] - x) ? p : best;
    });
  }
  document.querySelectorAll("[data-chart]").forEach(function (figure) {
    var chart = JSON.parse(figure.dataset.chart);
    var svg = figure.querySelector("svg");
    var rule = document.createElementNS(SVG, "path");
    rule.setAttribute("class", "rule");
    svg.appendChild(rule);
    var box = document.createElement("div");
    box.className = "tip-box";
    box.hidden = true;
    figure.appendChild(box);
    function show(event) {
      var at = svg.getBoundingClientRect();
      var x = (event.clientX - at.left) / at.width * svg.viewBox.baseVal.width;
      var found = chart.series.map(function (s) { return nearest(s.points, x); });
      var first = nearest(found, x);
      rule.setAttribute("d", "M" + first[2] + " " + chart.plot[2] + "V" + chart.plot[3]);
      box.textContent = chart.x + " " + text(first[0], false);
      found.forEach(function (p, i) {
        // A series that has no point near says nothing.
        if (Math.abs(p[2] - first[2]) > 12) return;
        var row = document.createElement("div");
        var mark = document.createElement("i");
        mark.className = "c" + chart.series[i].color;
        row.append(mark, chart.series[i].name + " " + text(p[1], chart.percent));
        box.appendChild(row);
      });
      box.hidden = false;
      var here = figure.getBoundingClientRect();
      var left = event.clientX - here.left + 14;
      if (left + box.offsetWidth > here.width - 8) left = event.clientX - here.left - box.offsetWidth - 14;
      box.style.left = Math.max(4, left) + "px";
      box.style.top = event.clientY - here.top + 12 + "px";
    }
    svg.addEventListener("pointermove", show);
    svg.addEventListener("pointerdown", show);
    svg.addEventListener("pointerleave", function () {
      box.hidden = true;
      rule.removeAttribute("d");
    });
  });
  document.querySelectorAll("time[data-ms]").forEach(function (time) {
    time.textContent = new Date(+time.dataset.ms).toLocaleString();
  });
  var wait = +document.body.dataset.reload;
  if (wait) setTimeout(function () { location.reload(); }, 1000 * wait);
})();
