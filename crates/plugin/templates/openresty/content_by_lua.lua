-- nginx keeps compiled Lua: after an edit of a developed plugin, `mfserv restart front` has it read
-- again. An installed release is read when it is installed.
local content = {}

function content.answer()
    ngx.say("Hello World, this is request_id: ", ngx.var.mfserv_request_id)
end

return content
