# Neovim with LuaJIT, which makes executable memory of its own, and its FFI.
# packages: neovim
# needs: nvim
# pinned: /nvim
# pinned: /libluajit[^/]*\.so
# results: 5
cat >script.lua <<'C'
local ffi = require('ffi')
ffi.cdef [[ int snprintf(char *, size_t, const char *, ...); double cos(double); ]]
local buffer = ffi.new('char[64]')
ffi.C.snprintf(buffer, 64, '%s %d', 'ffi', ffi.cast('int', 42))
print(ffi.string(buffer))
local sum = 0
for i = 1, 5000000 do sum = (sum + i * i) % 1000003 end
print('jit', jit.status(), sum)
print('zlib', pcall(ffi.load, 'libz.so.1') and 'loads' or 'does not')
vim.api.nvim_buf_set_lines(0, 0, -1, false, { 'c', 'a', 'b' })
vim.cmd('sort')
print(table.concat(vim.api.nvim_buf_get_lines(0, 0, -1, false), ','))
print(vim.fn.system('echo from a child'))
C
nvim --headless -u NONE -i NONE -n +'luafile script.lua' +'qa!' 2>&1 | tr -d '\r'
echo
