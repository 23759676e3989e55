export const text: string = "An Express app";
