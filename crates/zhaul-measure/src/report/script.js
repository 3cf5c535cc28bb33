"use strict";
const link = document.getElementById("download");
const json = document.getElementById("results").textContent;
link.href = URL.createObjectURL(new Blob([json], { type: "application/json" }));
link.hidden = false;
