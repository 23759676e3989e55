<?php
// A path that ends with .php names a script; any other path is answered by the index.php of its
// directory: this one answers /{{ name }}.
error_log('this is an info message');
?>
Hello world !
