# Ruby with compiled gems.
# packages: ruby ruby-sqlite3 ruby-nokogiri ruby-msgpack
# needs: ruby
# needs-success: ruby -rsqlite3 -rnokogiri -rmsgpack -e 0
# pinned: /sqlite3_native\.so
# pinned: /nokogiri\.so
# pinned: /msgpack\.so
# results: 7
# quick
ruby -e '
    require "sqlite3"; require "nokogiri"; require "msgpack"
    db = SQLite3::Database.new("test.db")
    db.execute("create table t (a integer, b text)")
    db.transaction { 100.times { |n| db.execute("insert into t values (?, ?)", [n, "x" * n]) } }
    puts "sum: #{db.get_first_value("select sum(a) from t where length(b) > 50")}"
    db.create_function("twice", 1) { |context, value| context.result = value * 2 }
    puts "function: #{db.get_first_value("select sum(twice(a)) from t")}"
    begin; db.execute("select no_such_column from t"); rescue SQLite3::SQLException => error; puts "error: #{error.class}"; end
    document = Nokogiri::XML(%q(<a><b n="1">x</b><b n="2">y</b></a>))
    puts "xpath: #{document.xpath("//b").map { |b| b.text + b["n"] }.join(" ")}"
    puts "html: #{Nokogiri::HTML("<p>one<p>two").css("p").map(&:text)}"
    puts "msgpack: #{MessagePack.unpack({"a" => [1, 2.5, nil]}.to_msgpack)}"
    puts "threads: #{4.times.map { |n| Thread.new { MessagePack.unpack(([n] * 1000).to_msgpack).sum } }.map(&:value)}"
'
