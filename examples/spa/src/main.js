import { pageOf } from "./routes.js";

document.getElementById("page").textContent = pageOf(location.pathname);
