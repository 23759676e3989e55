// A server of Express that listens on PORT, as platforms say it.
import express from "express";
import { text } from "./text";

const app = express();

app.get("/", (request, answer) => {
  answer.send(`<h1>${text}</h1>`);
});
app.get("/version", (request, answer) => {
  answer.send("one\n");
});

const server = app.listen(process.env.PORT || 3000);
process.on("SIGTERM", () => server.close());
