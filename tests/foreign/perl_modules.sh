# Perl with compiled modules of other projects.
# packages: perl libdbd-sqlite3-perl libxml-libxml-perl libjson-xs-perl
# needs: perl
# needs-success: perl -MDBD::SQLite -MXML::LibXML -MJSON::XS -e 1
# pinned: /auto/DBI/DBI\.so
# pinned: /auto/DBD/SQLite/SQLite\.so
# pinned: /auto/XML/LibXML/LibXML\.so
# pinned: /auto/JSON/XS/XS\.so
# results: 7
# quick
perl -e '
    use strict; use warnings; use DBI; use XML::LibXML; use JSON::XS;
    my $db = DBI->connect("dbi:SQLite:dbname=test.db", "", "", {RaiseError => 1, PrintError => 0});
    $db->do("create table t (a integer, b text)");
    my $insert = $db->prepare("insert into t values (?, ?)");
    $insert->execute($_, "x" x $_) for 1 .. 100;
    print "sum: ", $db->selectrow_array("select sum(a) from t where length(b) > 50"), "\n";
    # SQLite calls this function of Perl.
    $db->sqlite_create_function("twice", 1, sub { 2 * shift });
    print "function: ", $db->selectrow_array("select sum(twice(a)) from t"), "\n";
    eval { $db->do("select no_such_column from t") }; print "error: ", $@ =~ /no such column/ ? "seen" : "lost", "\n";
    my $document = XML::LibXML->load_xml(string => "<a><b n=\"1\">x</b><b n=\"2\">y</b></a>");
    print "xpath: ", join(" ", map { $_->textContent . $_->getAttribute("n") } $document->findnodes("//b")), "\n";
    eval { XML::LibXML->load_xml(string => "<a>") }; print "malformed: ", ref $@, "\n";
    my $json = JSON::XS->new->canonical;
    print "json: ", $json->encode($json->decode(q({"b": [1, 2.5, null, true], "a": "\u263a"}))) =~ s/[^ -~]/?/gr, "\n";
    my $child = fork // die; if (!$child) { exec $^X, "-MJSON::XS", "-e", "exit 7" } waitpid $child, 0;
    print "child: ", $? >> 8, "\n";
'
