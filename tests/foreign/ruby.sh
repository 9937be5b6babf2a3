# Ruby with the compiled extensions that are part of it.
# packages: ruby
# needs: ruby
# needs-success: ruby -ropenssl -rfiddle -rbigdecimal -rpsych -e 0
# pinned: /libruby
# pinned: /openssl\.so
# results: 8
# quick
ruby -e '
    require "openssl"; require "json"; require "zlib"; require "bigdecimal"; require "socket"; require "stringio"
    require "strscan"; require "date"; require "digest"; require "fiddle"; require "etc"; require "psych"
    puts "digest: #{OpenSSL::Digest.hexdigest("SHA256", "sopin")} #{Digest::MD5.hexdigest("sopin")}"
    puts "json: #{JSON.generate(JSON.parse(%q({"a":[1,2.5,null]})))}"
    puts "zlib: #{Zlib::Inflate.inflate(Zlib::Deflate.deflate("x" * 1000)).size}"
    puts "decimal: #{BigDecimal("1") / 3}"
    puts "yaml: #{Psych.dump({"a" => [1, "b"]}).inspect}"
    puts "date: #{Date.new(2001, 9, 9) >> 5}"
    strlen = Fiddle::Function.new(Fiddle.dlopen(nil)["strlen"], [Fiddle::TYPE_VOIDP], Fiddle::TYPE_INT)
    puts "fiddle: #{strlen.call("sopin")}"
    closure = Class.new(Fiddle::Closure) { def call(x) = x * 2 }.new(Fiddle::TYPE_INT, [Fiddle::TYPE_INT])
    puts "closure: #{Fiddle::Function.new(closure, [Fiddle::TYPE_INT], Fiddle::TYPE_INT).call(21)}"
    puts "threads: #{4.times.map { |n| Thread.new { (1..n * 1000).sum { |x| Math.sqrt(x) }.round(6) } }.map(&:value)}"
    puts "child: #{Process.wait2(fork { require "io/console"; exit! 7 })[1].exitstatus}"
    begin; raise ArgumentError, "x"; rescue => error; puts "raise: #{error.class}"; end
'
