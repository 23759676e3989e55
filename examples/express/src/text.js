exports.text = "An Express app";
